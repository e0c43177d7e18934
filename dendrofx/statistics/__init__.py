"""What is known of all samples of a dataset: made of one part of it at a time, and added up, in any order.

moments     count, mean and scatter of vectors
quantiles   how many scores lie up to which score
sample      a seeded choice of samples, the same however the dataset is cut into parts
"""
