// Commands of the network configuration are run only where this node's own flags say so.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACKENDS, registry } from '../../../daemon/backend/registry.ts'
import { WeftError } from '../../../daemon/base/error.ts'
import { type Permission, permit } from '../../../daemon/commands/permission.ts'

const configure = (keys: Record<string, string>, permission: Permission) =>
  registry(BACKENDS, ({ commands }) => permit(commands, permission)).configure('extension', keys)

const refusal = (keys: Record<string, string>, permission: Permission): WeftError => {
  try {
    configure(keys, permission)
  } catch (error) {
    assert.ok(error instanceof WeftError)
    assert.equal(error.code, 'CONFIG_INVALID')
    return error
  }
  return assert.fail('it was accepted')
}

const [NONE, WORDS, SHELL] = [
  { commands: false, shell: false },
  { commands: true, shell: false },
  { commands: true, shell: true }
]

test('without the flag every command is refused by its key, and the cure names the flag', () => {
  const { message, cure } = refusal({ subnetaddcommand: 'true', ShutdownCommand: 'true' }, NONE)
  assert.match(message, /^Backend\.subnetaddcommand, Backend\.ShutdownCommand: this node does not run commands/)
  assert.match(cure, /--allow-extension /)
  assert.match(refusal({ PreStartupCommand: 'true' }, { commands: false, shell: true }).cure, /--allow-extension /)
})

test('the extension backend without commands needs no permission', () => {
  assert.equal(configure({ PreStartupCommand: '  ' }, NONE).type, 'extension')
})

test('shell syntax is refused with its place, and accepted with the second flag', () => {
  const keys = { SubnetAddCommand: 'ip route add $SUBNET via $PUBLIC_IP; true' }
  const { message, cure } = refusal(keys, WORDS)
  assert.match(
    message,
    /^Backend\.SubnetAddCommand is "ip route add .*": it has ";" at character 36, which needs a shell/
  )
  assert.match(cure, /--allow-extension-shell/)
  assert.equal(configure(keys, SHELL).type, 'extension')
  assert.equal(configure({ SubnetAddCommand: 'ip route add $SUBNET via $PUBLIC_IP' }, WORDS).type, 'extension')
})

test('a command is a short text', () => {
  for (const value of [1, ['true'], 'x'.repeat(8_193), 'a\0b'])
    assert.match(refusal({ PostStartupCommand: value as string }, SHELL).message, /must be a command line of at most/)
})
