"""Events of internal services, consumed: `consumer` delivers `notifier.events`, `batching` bounds its commits."""
