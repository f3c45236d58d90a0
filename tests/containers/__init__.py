"""The image and the Compose file, run in containers: `make image-test`, `make compose-test`."""
