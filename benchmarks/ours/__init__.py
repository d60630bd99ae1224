"""The programs that use portio, written as its users would write them."""
