from django.urls import path

from .views import book, books

urlpatterns = [path("books/", books, name="books"), path("books/<int:number>/", book, name="book")]
