"""The corridor: the only rooms that see both customers and machinery. An agent turns records of one kind into another."""
