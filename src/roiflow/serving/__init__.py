"""From a request to a slate: the one path of service, simulator and offline replay."""
