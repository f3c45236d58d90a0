"""The way in: `consumer` handles the batches of `notifier.events`, `batching` cuts them into bounded pieces."""
