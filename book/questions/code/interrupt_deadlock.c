static irqreturn_t irq_handler(int irq, void *data)
{
	struct queue *queue = data;

	spin_lock(&queue->lock);
	queue->pending++;
	spin_unlock(&queue->lock);
	return IRQ_HANDLED;
}

static unsigned int take_pending(struct queue *queue)
{
	unsigned int pending;

	spin_lock(&queue->lock);
	pending = queue->pending;
	queue->pending = 0;
	spin_unlock(&queue->lock);
	return pending;
}
