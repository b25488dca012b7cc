"""roiflow: an orchestrated MLOps platform that raises the return on ad spend, and proves it."""
