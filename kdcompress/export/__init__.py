"""A network as a file that a runtime takes, checked against the network, and what rounding it to int8 cost."""
