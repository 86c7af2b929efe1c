// The shape of flannel's network configuration as JSON Schema; each `description` completes "must be …" in an error.
// Rules between keys are in net-conf.ts.
export const netConfSchema = {
  $id: 'netConf',
  type: 'object',
  description: 'a JSON object',
  properties: {
    EnableIPv4: { type: 'boolean', description: 'true or false, without quotes' },
    EnableIPv6: { type: 'boolean', description: 'true or false, without quotes' },
    EnableNFTables: { type: 'boolean', description: 'true or false, without quotes' },
    Network: { type: 'string', description: 'an IPv4 network as in "10.244.0.0/16"' },
    SubnetLen: { type: 'integer', minimum: 0, maximum: 30, description: 'a prefix length of at most 30' },
    SubnetMin: { type: 'string', description: 'the IPv4 address of a subnet as in "10.244.1.0"' },
    SubnetMax: { type: 'string', description: 'the IPv4 address of a subnet as in "10.244.255.0"' },
    IPv6Network: { type: 'string', description: 'an IPv6 network as in "fd00:10:244::/48"' },
    IPv6SubnetLen: { type: 'integer', minimum: 0, maximum: 126, description: 'a prefix length of at most 126' },
    IPv6SubnetMin: { type: 'string', description: 'the IPv6 address of a subnet as in "fd00:10:244:1::"' },
    IPv6SubnetMax: { type: 'string', description: 'the IPv6 address of a subnet as in "fd00:10:244:ff::"' },
    Backend: {
      type: 'object',
      description: 'an object with the key Type as in {"Type":"vxlan"}',
      properties: { Type: { type: 'string', description: 'the name of a backend as in "vxlan"' } },
      required: ['Type']
    }
  }
} as const
