"""The studies: what is measured beside the table of a case, and the commands of their own."""
