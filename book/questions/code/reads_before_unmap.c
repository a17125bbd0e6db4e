static irqreturn_t receive(int irq, void *data)
{
	struct receiver *receiver = data;
	size_t length = readl(receiver->registers + LENGTH);

	deliver(receiver->buffer, length);
	dma_unmap_single(receiver->dev, receiver->dma, BUFFER_SIZE, DMA_FROM_DEVICE);
	restart(receiver);
	return IRQ_HANDLED;
}
