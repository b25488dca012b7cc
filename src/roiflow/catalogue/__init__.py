"""What can be shown, on which terms: ads, bids, prices, budgets, as they change by the hour."""
