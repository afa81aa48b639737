"""Results for people: tables, pages, files; and what commands share."""
