"""Makes the database anew: `python -m django_shop.fill`, in the folder examples. SHOP_DATABASE names another file for it."""

import datetime
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", f"{__package__}.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection  # noqa: E402

from .models import Book  # noqa: E402

if os.path.exists(settings.DATABASE):
    os.remove(settings.DATABASE)
with connection.schema_editor() as editor:
    editor.create_model(Book)
Book.objects.bulk_create(
    Book(
        title=f"Book {number:04}",
        author=f"Author {number % 37}",
        price=f"{number % 60}.95",
        published=datetime.date(2000, 1, 1) + datetime.timedelta(days=number),
    )
    for number in range(200)
)
