"""The only room that imports libvirt. Functions take the connection or the domain first."""
