"""Two arms side by side: who is in which, what a look may say, and what a year may get wrong."""
