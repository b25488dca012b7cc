"""The online store: its layout, what an event changes, and what is read at a request."""
