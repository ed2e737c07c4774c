from django.contrib import admin

from .models import Category, Part, PurchaseOrder, PurchaseOrderLine, Supplier

admin.site.register(Category)


@admin.register(Supplier)
class SupplierAdmin(admin.ModelAdmin):
    list_display = ["name", "email"]


@admin.register(Part)
class PartAdmin(admin.ModelAdmin):
    list_display = ["number", "name", "unit_price", "on_hand"]
    list_editable = ["unit_price"]
    filter_horizontal = ["categories"]


class LineInline(admin.TabularInline):
    model = PurchaseOrderLine
    extra = 1


@admin.register(PurchaseOrder)
class PurchaseOrderAdmin(admin.ModelAdmin):
    list_display = ["id", "supplier", "status"]
    inlines = [LineInline]
    actions = ["mark_ordered"]

    @admin.action(description="Mark as ordered")
    def mark_ordered(self, request, queryset):
        queryset.update(status=PurchaseOrder.Status.ORDERED)
