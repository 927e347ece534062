"""Text that sealed streams often hold: what stands here too is stored as a short reference to it.

A file format: no block and no document can be read without these very bytes.  They mean nothing to the log,
and whatever they lack is stored all the same, only longer.
"""

from __future__ import annotations

from typing import Final

DICTIONARY: Final = (
    b'{"type":"input_image","image_url":"https://","detail":"auto"},{"type":"input_file","file_data":"data'
    b':application/pdf;base64,","filename":"'
    b'","strict":true,"parameters":{"type":"object","properties":{"":{"type":"string","description":"The "'
    b'},"":{"type":"integer"},"":{"type":"array","items":{"type":"number"}},"":{"type":"boolean"}},"requir'
    b'ed":["'
    b'"],"additionalProperties":false}},{"type":"function","name":"","description":"'
    b'{"type":"json_schema","name":"","schema":{"$schema":"'
    b'"reasoning":{"effort":"high","summary":"auto"},"include":["reasoning.encrypted_content"],"background'
    b'":true,"instructions":"You are a helpful assistant. '
    b'{"code":"upstream_error","message":"The upstream '
    b'"verbosity":"medium"},"user":"","service_tier":"auto","conversation":{"id":"conv_'
    b'"tool_choice":"required","metadata":{"'
    b'{"type":"shell_call","action":{"commands":["","timeout_ms":null,"max_output_length":null}},{"type":"'
    b'custom_tool_call","input":"'
    b"refusal_appended,arguments_appended,reasoning_appended,summary_appended,model_call_failed,tool_start"
    b"ed,tool_finished,response_failed,response_incomplete,response_cancelled"
    b'{"at":,"by":"key_","reason":"max_output_tokens","shown":"'
    b'{"kind":"reasoning","upstream_id":"rs_","content":[{"type":"reasoning_text","text":"","summary":[{"t'
    b'ype":"summary_text","text":"","encrypted_content":"gAAAAA'
    b'{"kind":"function_call","call_id":"call_","name":"get_'
    b'{"call_id":"call_","name":"","key":"fc_","output":"","error":"'
    b'{"finish":"tool_calls","usage":['
    b'_upstream":{"name":"","id":"'
    b'{"type":"function_call_output","call_id":"call_","output":"{\\"","status":"completed"},{"id":"rs_'
    b'","type":"reasoning","summary":[],"status":"completed"},{"id":"fc_'
    b'","type":"function_call","status":"completed","call_id":"call_","name":"get_","arguments":"{\\"query'
    b'\\":\\"'
    b'{"id":"resp_","object":"response","created_at":17,"completed_at":17,"status":"completed","background'
    b'":false,"error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,"max_too'
    b'l_calls":null,"model":"","parallel_tool_calls":true,"previous_response_id":null,"prompt_cache_key":n'
    b'ull,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"default","st'
    b'ore":true,"temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_l'
    b'ogprobs":0,"top_p":1.0,"presence_penalty":0.0,"frequency_penalty":0.0,"truncation":"disabled","metad'
    b'ata":{},"output":[{"id":"msg_'
    b'"}],"usage":{"input_tokens":,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"outp'
    b'ut_tokens":,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":}}'
    b'{"input":[{"id":"msg_","type":"message","role":"user","content":[{"type":"input_text","text":""}],"s'
    b'tatus":"completed"}],"output":[{"id":"msg_","type":"message","status":"completed","role":"assistant"'
    b',"content":[{"type":"output_text","text":"","annotations":[]}]}]}'
    b'{"items":,"snapshot":}'
    b'],["response_created,activation_started","model_call_started,item_started,text_appended","item_start'
    b'ed","text_appended","item_ended,model_call_ended,response_completed"],[0,1,1,1,1,1,1,1,1,1,1,1,2,2,2'
    b",2,2,2,2,2,3],[0,1,2,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,3,4],1,1,0,"
    b',"previous_response_id":"resp_","max_output_tokens":,"temperature":0.,"tools":[{"type":"function","n'
    b'ame":"'
    b'{"adapter":"openai_responses","url":"https://api.openai.com/v1","key_env":"OPENAI_API_KEY","max_toke'
    b'ns_field":"max_completion_tokens","developer_role":true,"resume":"prefix","resume":"repeat","isolati'
    b'on":"shared","queued":true'
    b'{"id":"resp_","project":"default","key_id":"key_","key_id":null,"created_at":17,"request":{"model":"'
    b'","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":""}]}]},"agent":{"'
    b'id":"","upstream":{"name":"simulated","adapter":"simulated","url":"","key_env":null,"name":"vllm","a'
    b'dapter":"openai_chat","url":"http://localhost:8000/v1","key_env":null,"headers":{},"headers_env":{},'
    b'"extra":{},"timeouts":{"connect":10,"first_byte":120,"idle":60},"max_retries":2,"chat":{"max_tokens_'
    b'field":"max_tokens","developer_role":false,"stream_usage":true,"structured_output":true,"reasoning_f'
    b'ield":null,"continues":null}},"model":"","agent":null,"instructions":null,"tools":[],"resume":"promp'
    b't","isolation":null,"ray_options":{},"limits":{"max_output_tokens":null,"max_model_calls":null,"max_'
    b'tool_calls":null,"seconds":null}},"queued":false}\n'
    b'{"host":"host-","actor":"host-","node":"","pid":}\n'
    b'{"call":0,"attempt":0,"resume":"first","upstream":"","upstream_request_id":"req_","upstream_request_'
    b'id":null,"request_digest":"'
    b'"}\n{"kind":"message","upstream_id":"msg_"}\n{"kind":"message"}\n{"d":[\x00,\x00,\x00,\x00,\x00]}\n{"'
    b'd":[\x00]}\n{"d":[\x00]}\n{}\n{"finish":"stop","usage":[,0,0]}\n{"at":17,"shown":"'
)
"""The rarer first: what stands near the end is referred to by the shortest numbers."""
