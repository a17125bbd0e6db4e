// Checks the model of <vm-lab> against every trace: it must derive the states that the scenario claims from the bits that
// the kernel reported.
import assert from 'node:assert';
import { readFileSync, readdirSync } from 'node:fs';
import test from 'node:test';

import '../../../book/theme/vm-model.js';

const { at, framesOf } = globalThis.vmModel;
const LETTERS = { untouched: '.', zero: '0', resident: 'r', forked: 'f', copied: 'c', shared: 's' };
const folder = new URL('../../../book/src/traces/', import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith('.json'));

assert.ok(files.length > 0);
for (const file of files) {
	const trace = JSON.parse(readFileSync(new URL(file, folder)));
	test(trace.name, () => {
		trace.steps.forEach((step, number) => {
			const { sentence, processes } = at(trace, number);
			const states = Object.fromEntries(processes.map(({ name, pages }) =>
				[name, pages.map(({ state }) => LETTERS[state]).join('')]));
			assert.deepEqual(states, step.states, `step ${number}`);
			assert.ok(sentence.startsWith(step.says));
		});
	});
}

test('the sentence of a step has its value and its page faults', () => {
	const step = (more) => ({
		process: 'parent', op: 'read', first: 0, count: 1, says: 'A page is read.', value: null, faults: null, ...more,
	});
	const trace = {
		mapping: 'private',
		steps: [
			step({ bits: { parent: '--' }, faults: 0 }),
			step({ bits: { parent: 'p-' }, value: 0, faults: 1 }),
			step({ bits: { parent: 'pp' }, faults: 2 }),
			step({ bits: { parent: 'pp' } }),
		],
	};
	const sentence = trace.steps.map((_, number) => at(trace, number).sentence);
	assert.deepEqual(sentence, [
		'A page is read. No page faults.',
		'A page is read. It reads 0. One page fault.',
		'A page is read. 2 page faults.',
		'A page is read.',
	]);
	const [before, after] = [0, 1].map((number) => at(trace, number).processes[0]);
	assert.equal(before.words, 'pages 0 to 1 untouched');
	assert.equal(after.words, 'pages 0 zero page, 1 untouched');
	assert.deepEqual(after.pages.map(({ changed }) => changed), [true, false]);
});

test('a step does not depend on the steps that were shown before', () => {
	const trace = JSON.parse(readFileSync(new URL('copy-on-write.json', folder)));
	const once = JSON.stringify(at(trace, 4));
	at(trace, 10);
	at(trace, 0);
	assert.equal(JSON.stringify(at(trace, 4)), once);
});

test('a frame is listed once, with the processes that map it', () => {
	const frames = (name, step, page) => {
		const { processes } = at(JSON.parse(readFileSync(new URL(`${name}.json`, folder))), step);
		return framesOf(processes, page).map(({ state, owners }) => `${state}: ${owners.join()}`);
	};
	assert.deepEqual(frames('copy-on-write', 1, 4), []);
	assert.deepEqual(frames('copy-on-write', 1, 1), ['resident: parent']);
	assert.deepEqual(frames('copy-on-write', 2, 1), ['forked: parent,child']);
	assert.deepEqual(frames('copy-on-write', 4, 1), ['resident: parent', 'copied: child']);
	assert.deepEqual(frames('copy-on-write', 9, 6), ['resident: child']);
});
