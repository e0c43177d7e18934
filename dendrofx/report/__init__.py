"""The report: one offline HTML file about a transformed module, measured on data that the caller gives."""
