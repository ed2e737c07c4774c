from django.db import models, transaction
from django.db.models import F
from django.utils import timezone


class Supplier(models.Model):
    name = models.CharField(max_length=200, unique=True)
    email = models.EmailField(blank=True)
    bank_account = models.CharField(max_length=34, blank=True)
    terms = models.JSONField(default=dict, blank=True)

    def __str__(self):
        return self.name


class Category(models.Model):
    name = models.CharField(max_length=100, unique=True)

    class Meta:
        verbose_name_plural = "categories"

    def __str__(self):
        return self.name


class Part(models.Model):
    number = models.CharField(max_length=50, unique=True)
    name = models.CharField(max_length=200)
    unit_price = models.DecimalField(max_digits=12, decimal_places=4, default=0)
    on_hand = models.DecimalField(max_digits=14, decimal_places=3, default=0)
    reorder_level = models.DecimalField(max_digits=14, decimal_places=3, default=0)
    specification = models.JSONField(default=dict, blank=True)
    categories = models.ManyToManyField(Category, blank=True, related_name="parts")
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return self.number


class PurchaseOrder(models.Model):
    class Status(models.TextChoices):
        DRAFT = "draft"
        ORDERED = "ordered"
        RECEIVED = "received"

    supplier = models.ForeignKey(Supplier, on_delete=models.PROTECT, related_name="orders")
    status = models.CharField(max_length=20, choices=Status, default=Status.DRAFT)
    notes = models.TextField(blank=True)
    created = models.DateTimeField(auto_now_add=True)
    received = models.DateTimeField(null=True, blank=True)

    def __str__(self):
        return f"order {self.pk}"

    @transaction.atomic
    def receive(self):
        """Book the lines into stock."""
        for line in self.lines.all():
            Part.objects.filter(pk=line.part_id).update(on_hand=F("on_hand") + line.quantity)
        self.status = self.Status.RECEIVED
        self.received = timezone.now()
        self.save()


class PurchaseOrderLine(models.Model):
    order = models.ForeignKey(PurchaseOrder, on_delete=models.CASCADE, related_name="lines")
    part = models.ForeignKey(Part, on_delete=models.PROTECT, related_name="lines")
    quantity = models.DecimalField(max_digits=14, decimal_places=3)
    unit_price = models.DecimalField(max_digits=12, decimal_places=4)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["order", "part"], name="one_line_per_part")]

    def __str__(self):
        return f"{self.quantity} of {self.part}"
