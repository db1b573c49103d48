-- ARGV: 3 how many waiters to show, 4 the lease.
-- Replies {last token, holders, waiters, doubt, limit, kind}. Limit and kind are 0 and - without a
-- state. A holder or waiter is {record, age in microseconds}.
-- Doubt is 1 if an acquire would now be refused because the server may have forgotten holders. It
-- is 2 if the recorded holders may be outdated too. Otherwise it is 0.
-- Writes nothing. A replica would run it on old data, so it refuses to run there.
local info = redis.pcall('INFO', 'replication')
if type(info) == 'string' and string.find(info, 'role:slave', 1, true) then return redis.error_reply('READONLY this server is a replica') end
local holders, waiters = {}, {}
local function show(list, r, since)
  if r then list[#list + 1] = {write(r), math.max(now - since, 0)} end
end
local r = sole()
if r and r.expiry > now then show(holders, r, r.turn) end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], string.format('(%.0f', now), '+inf')) do
  r = find(id)
  show(holders, r, r and r.turn)
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, tonumber(ARGV[3]) - 1)) do
  local deadline = redis.call('ZSCORE', KEYS[3], id)
  if deadline and tonumber(deadline) > now then
    r = find(id)
    show(waiters, r, r and tonumber(r.number))
  end
end
-- Decides as `check_server` does for a server, and as `acquire` does for a missing state.
local function doubt()
  local run, born = ARGV[1], tonumber(ARGV[2])
  local known = run ~= '-' and run ~= 'ask'
  if known and S.run ~= '-' and run ~= S.run then return 2 end
  if blocked_for() > 0 or is_torn then return 1 end
  if not known or S.run ~= '-' then return 0 end
  local since = math.max(math.min(born or now, now), (unforgotten_since(run)))
  return since + tonumber(ARGV[4]) > now and 1 or 0
end
return {string.match(redis.call('GET', KEYS[6]) or '0', '^%d+'), holders, waiters, doubt(), S.limit, S.kind or '-'}
