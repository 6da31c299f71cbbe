"""libvirt: the only room that imports it. Functions take the connection or the domain first."""
