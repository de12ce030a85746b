print("hello from its class")


class Chatty:
    """Does nothing."""
