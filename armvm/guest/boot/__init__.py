"""The progress of a boot, from the serial console and from the guest agent."""
