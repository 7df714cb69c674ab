"""Pictures of a trajectory's steps, and files made of them. Needs numpy and Pillow, and no torch: import it late."""
