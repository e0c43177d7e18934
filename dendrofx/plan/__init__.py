"""The plan: what was decided for every site and why, as data, as text and as a file.

plan      sites, cascade, guarantee and origin, as data
entries   a site, dead rows
times     one race of the whole model
text      printed
file      JSON
origin    where it was made, and that it belongs here
"""
