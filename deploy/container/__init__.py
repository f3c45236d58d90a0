"""The image and the Compose file, and the programs that build and run them.

`engine` finds a container engine or starts a private one; `debian_root` makes base images where no registry is
reachable; `image` builds the image (`make image`).
"""
