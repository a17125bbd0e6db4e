static int sensor_probe(struct platform_device *pdev)
{
	struct sensor *device;

	device = kzalloc(sizeof(*device), GFP_KERNEL);
	if (!device)
		return -ENOMEM;
	device->table = vmalloc(TABLE_SIZE);
	if (!device->table)
		return -ENOMEM;
	platform_set_drvdata(pdev, device);
	return 0;
}
