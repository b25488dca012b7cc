"""How a bundle is served: processes of this machine, the edge before them, the release."""
