"""Whatever has a mailbox: the store, the router, the transports with their couriers, the notifier, the timer."""
