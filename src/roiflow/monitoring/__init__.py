"""What has changed in the data since training."""
