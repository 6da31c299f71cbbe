"""What needs guests that boot on other hosts: minutes each, in make test-all."""
