"""How armvm reaches a guest by ssh, wherever the guest runs."""
