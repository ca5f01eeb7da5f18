"""Who watches: what is known of it, and the one number that is made of it."""
