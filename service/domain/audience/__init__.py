"""Who watches: what is known of it, the one number that is made of it, and whether an egress is to run for them."""
