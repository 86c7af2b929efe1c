// The tables of the documents are what the code says: after a change of code, `node scripts/docs.ts` writes them anew.
import assert from 'node:assert/strict'
import test from 'node:test'
import { table, withBlocks } from '../../../scripts/docs/markdown.ts'
import { PAGES, printedPage } from '../../../scripts/docs.ts'

for (const page of Object.keys(PAGES)) {
  test(`${page} is as scripts/docs.ts prints it`, () => {
    const { is, shouldBe } = printedPage(page)
    assert.equal(is, shouldBe, `run "node scripts/docs.ts" and look at what it changes in ${page}`)
  })
}

test('a block without marks, and marks without a block, are errors', () => {
  const page = 'a\n<!-- printed by scripts/docs.ts: x -->\nold\n<!-- end -->\nb\n'
  assert.equal(withBlocks('p', page, { x: () => 'new' }), page.replace('old', 'new'))
  assert.throws(() => withBlocks('p', page, {}), /p has marks for x/)
  assert.throws(() => withBlocks('p', page, { x: () => '', y: () => '' }), /p has no marks for y/)
})

test('nothing in a cell is taken for a mark', () => {
  assert.equal(
    table([
      ['a', 'b'],
      ['x|y', '<p> * `<p> *`'],
      ['', '-']
    ]).split('\n')[2],
    '| x\\|y | \\<p\\> \\* `<p> *` |'
  )
})
