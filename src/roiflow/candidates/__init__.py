"""Pre-selection: from every eligible ad to the top K, by logistic regression or XGBoost."""
