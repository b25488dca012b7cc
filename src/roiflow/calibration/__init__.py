"""How like a real log the ad world is, and the world fitted to one."""
