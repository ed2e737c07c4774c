from decimal import Decimal

from django.contrib.auth.decorators import login_required
from django.http import JsonResponse
from django.shortcuts import aget_object_or_404, get_object_or_404
from django.views.decorators.http import require_POST

from .models import Part, PurchaseOrder


@require_POST
@login_required
def receive(request, pk):
    order = get_object_or_404(PurchaseOrder, pk=pk)
    order.receive()
    return JsonResponse({"status": order.status})


@require_POST
@login_required
async def reprice(request, pk):
    part = await aget_object_or_404(Part, pk=pk)
    part.unit_price = Decimal(request.POST["unit_price"])
    await part.asave(update_fields=["unit_price"])
    return JsonResponse({"unit_price": str(part.unit_price)})
