-- ARGV: 1 quarantine, 2 'all', 'idle' or a token. Ends holds against the will of their holders; 'idle' instead deletes all keys when nobody holds or waits.
-- Replies how many holds were ended, or 1 when the keys are gone and 0 when somebody is there.
quarantine = ARGV[1] == '1'
if run == '' then run = false end
reap()
if ARGV[2] == 'idle' then
  if used > 0 or redis.call('ZCARD', ALIVE) > 0 then
    if known then save() end
    return 0
  end
  redis.call('DEL', unpack(KEYS))
  return 1
end
local ended = 0
for _, id in ipairs(redis.call('ZRANGE', HOLD, 0, -1)) do
  local rec = record(id)
  if rec and (ARGV[2] == 'all' or int(rec[TOKEN]) == ARGV[2]) then
    expire(id, rec)
    ended = ended + 1
  end
end
if known then
  grant()
  save()
end
return ended
