"""Pages of the site that are made of the code, as plain texts: these modules know no mkdocs."""
