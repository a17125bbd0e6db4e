static int display_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct buffer *buffer = file->private_data;
	unsigned long length = vma->vm_end - vma->vm_start;
	unsigned long frame = buffer->physical >> PAGE_SHIFT;

	vma->vm_page_prot = pgprot_noncached(vma->vm_page_prot);
	return remap_pfn_range(vma, vma->vm_start, frame, length, vma->vm_page_prot);
}
