"""The guest agent and the virtio channels."""
