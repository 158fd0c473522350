"""What operators and data engineers ask of identity: who is who and why, what would be otherwise, how good it is."""
