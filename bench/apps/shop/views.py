from django.shortcuts import render

from shop.models import Book

ROWS = 12


def books(request):
    return render(request, "shop/books.html", {"books": Book.objects.filter(price__gt=5)[:ROWS]})
