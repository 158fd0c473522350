"""What may leave, in what form and until when. Pure: no I/O, no clock; time, randomness and ids are arguments."""
