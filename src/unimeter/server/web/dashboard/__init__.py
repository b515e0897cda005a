"""What people look at: the pages, their static files, and each view as JSON and CSV.

pages    shells and static files, their policy, their caching
views    which views there are; `twins` gives each one's data, by the handlers of `api`
usage    one account, for its page and for the embedded view of a customer
history  the last minutes, second by second, for the overview's charts
"""
