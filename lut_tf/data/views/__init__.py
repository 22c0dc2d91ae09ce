"""What is cut out of an image and done to it, decided by uniform numbers that come with it."""
